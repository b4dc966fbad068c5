"""What a notebook uses, by the names of `finetrace` itself: `open` for what a study left, `hidden_states` for texts,
`lens` for the functions of the lenses. docs/api.md lists the public names."""

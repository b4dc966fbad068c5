"""Edge probing (Tenney et al. 2019): what single layers and learned mixes of layers of a frozen encoder tell about
words, spans and pairs of spans.

    data        what a probe is trained on: states of the tokens that spans cover
    recipe      how probes are built and trained: three named recipes and changes of single fields
    network     probes side by side: one network whose every tensor has a probe axis
    training    `train_probes`: probes of all layers and mixes in one pass over cached states, each as if it were alone
    scoring     `score_probes`: what they decide on each target
    metrics     micro precision, recall, F1, with intervals over sentences
    statistics  mixing weights and cumulative scores in single numbers
    control     control tasks;  mdl: description length;  summary: rows of the table
"""

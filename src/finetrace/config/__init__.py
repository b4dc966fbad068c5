"""Settings as typed, frozen dataclasses: one module per room. A stage imports its own ones only."""

"""Settings as typed, frozen dataclasses: one module per section or group of sections. A stage imports its own only."""

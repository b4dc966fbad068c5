"""Learning dynamics: what is learned when, and what adaptation keeps and loses, from the scores of other lenses
(Zertuche and Liu 2021; Tenney et al. 2019; Sellam et al. 2022).

gains       when a score is gained: steps, areas, onsets;  forgetting  what adaptation keeps and loses
resampling  the multi-bootstrap over seeds and examples
arms        original, adapted and control: their courses, differences and summaries as rows of the table
facts       rows from what the lens cloze found;  sources  rows from the lens edges and the stage downstream
table       the table, to and from columns;  report  headline numbers and curves from it
"""

from finetrace.lenses.dynamics.forgetting import (
    Transitions,
    compared_steps,
    forgotten_share,
    relative_difference,
    repeated,
    transitions,
)
from finetrace.lenses.dynamics.gains import (
    Gain,
    Rise,
    area_under_curve,
    onset_layer,
    onset_step,
    relative_increase,
    steepest_rise,
    step_axis,
    step_of_gain,
    unit_of,
)
from finetrace.lenses.dynamics.resampling import Interval, Resampled, Resampling, multi_bootstrap

__all__ = ["Gain", "Interval", "Resampled", "Resampling", "Rise", "Transitions", "area_under_curve", "compared_steps",
           "forgotten_share", "multi_bootstrap", "onset_layer", "onset_step", "relative_difference", "relative_increase",
           "repeated", "steepest_rise", "step_axis", "step_of_gain", "transitions", "unit_of"]

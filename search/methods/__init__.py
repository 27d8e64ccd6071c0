"""What can be chosen on the axes of a design: one declaration for each learning algorithm, weight update and edit.

A declaration (`spec.AlgorithmSpec`, `spec.UpdateSpec`, `spec.EditSpec`) holds all that the designer knows of a member:
the data and models it goes with and why not others, its learning rate, its searched settings and its cost. The space,
the policy, the cost model, the report and docs/design-space.md read these tables; none of them names a member.
"""

from search.methods.algorithms import ALGORITHM_OF, ALGORITHMS, RECIPES, SETTINGS
from search.methods.edits import EDIT_OF, EDITS
from search.methods.spec import AlgorithmSpec, EditSpec, Interval, RowLengths, Setting, StageGoal, UpdateSpec, Values
from search.methods.updates import UPDATE_OF, UPDATES

__all__ = [
    "ALGORITHMS",
    "ALGORITHM_OF",
    "EDITS",
    "EDIT_OF",
    "RECIPES",
    "SETTINGS",
    "UPDATES",
    "UPDATE_OF",
    "AlgorithmSpec",
    "EditSpec",
    "Interval",
    "RowLengths",
    "Setting",
    "StageGoal",
    "UpdateSpec",
    "Values",
]

"""The members of the design space: one declaration for each learning algorithm, weight update and edit.

A declaration (`spec.AlgorithmSpec`, `spec.UpdateSpec`, `spec.EditSpec`) holds all that the designer knows about a
member: the data and models it suits and why not others, its learning rate, its searched hyperparameters and its cost.
The space, the policy, the cost model, the report and docs/design-space.md read these tables; none names a member.
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

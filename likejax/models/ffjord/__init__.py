"""FFJORD, continuous normalizing flows of points and images."""

from likejax.models.ffjord.config import FFJORDConfig as FFJORDConfig
from likejax.models.ffjord.config import ImageFFJORDConfig as ImageFFJORDConfig
from likejax.models.ffjord.solving import function_evaluations as function_evaluations
from likejax.models.ffjord.solving import with_solver as with_solver

"""Continuous maps: the solution of an ordinary differential equation."""

from likejax.bijections.ode.ode import ODE as ODE
from likejax.bijections.ode.ode import ConditionalField as ConditionalField
from likejax.bijections.ode.ode import field_given as field_given
from likejax.bijections.ode.settings import Solver as Solver
from likejax.bijections.ode.settings import Trace as Trace

"""Continuous maps: the solution of an ordinary differential equation."""

from likejax.bijections.ode.ode import ODE as ODE
from likejax.bijections.ode.ode import Solver as Solver
from likejax.bijections.ode.ode import Trace as Trace
from likejax.bijections.ode.ode import check_continuous as check_continuous
from likejax.bijections.ode.ode import with_solver as with_solver

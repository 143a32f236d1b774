"""Invertible maps: data to latent with a log-determinant, and back."""

from likejax.bijections.actnorm import ActNorm as ActNorm
from likejax.bijections.bijection import Bijection as Bijection
from likejax.bijections.chain import Chain as Chain
from likejax.bijections.chain import Inverse as Inverse
from likejax.bijections.chain import Repeat as Repeat
from likejax.bijections.conv1x1 import Conv1x1 as Conv1x1
from likejax.bijections.conv1x1 import Conv1x1LU as Conv1x1LU
from likejax.bijections.conv1x1 import Permutation as Permutation
from likejax.bijections.coupling import AdditiveCoupling as AdditiveCoupling
from likejax.bijections.coupling import AffineCoupling as AffineCoupling
from likejax.bijections.elementwise import Affine as Affine
from likejax.bijections.elementwise import Logit as Logit
from likejax.bijections.ode import ODE as ODE
from likejax.bijections.ode import Solver as Solver
from likejax.bijections.ode import Trace as Trace
from likejax.bijections.split import FactorOut as FactorOut
from likejax.bijections.split import Split as Split
from likejax.bijections.split import TopPrior as TopPrior
from likejax.bijections.squeeze import Squeeze as Squeeze
from likejax.bijections.standardize import BatchNorm as BatchNorm
from likejax.bijections.standardize import Standardize as Standardize

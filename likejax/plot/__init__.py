"""Matplotlib figures of arrays, and of what a density can show; no global state is touched."""

from likejax.plot.arrays import curves as curves
from likejax.plot.arrays import field as field
from likejax.plot.arrays import galleries as galleries
from likejax.plot.arrays import histograms as histograms
from likejax.plot.arrays import landscape as landscape
from likejax.plot.arrays import maps as maps
from likejax.plot.arrays import matrix as matrix
from likejax.plot.arrays import pixels as pixels
from likejax.plot.arrays import plane as plane
from likejax.plot.arrays import posteriors as posteriors
from likejax.plot.arrays import roc as roc
from likejax.plot.arrays import sheet as sheet
from likejax.plot.densities import density_2d as density_2d
from likejax.plot.densities import interpolation as interpolation
from likejax.plot.densities import reconstructions as reconstructions
from likejax.plot.densities import samples as samples
from likejax.plot.densities import temperatures as temperatures

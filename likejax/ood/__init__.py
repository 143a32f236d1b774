"""Out-of-distribution (OOD) scores on any density: fit, calibrate, compare.

Throughout this package *inside* means in-distribution: examples from the distribution that the
density was trained on. *Outside* means out-of-distribution: examples from any other. A score is
higher the more an example looks like an outside one, and outside is the positive class of every
metric.

A score is used in three steps: ``fit`` it to held-out inside examples, ``calibrate`` it with
others, then call it. ``benchmark`` does all three for several scores and sets, and reports how well
each score separates outside examples from inside ones.

Decisions follow from calibrated scores: about many examples at once (``benjamini_hochberg``), from
several p-values of one (``fisher``, ``simes``), and about examples whose distribution has shifted
since calibration (``weighted_p_values``, ``ShiftedThreshold``).
"""

from likejax.ood.background import fit_background as fit_background
from likejax.ood.baselines import Contrast as Contrast
from likejax.ood.baselines import Intensity as Intensity
from likejax.ood.baselines import MeanIntensity as MeanIntensity
from likejax.ood.calibrate import false_alarm_rates as false_alarm_rates
from likejax.ood.calibrate import p_values as p_values
from likejax.ood.calibrate import rank_of_threshold as rank_of_threshold
from likejax.ood.calibrate import threshold as threshold
from likejax.ood.codecs import code_lengths as code_lengths
from likejax.ood.combined import Combined as Combined
from likejax.ood.comparison import benchmark as benchmark
from likejax.ood.complexity import CodeLength as CodeLength
from likejax.ood.complexity import CodeLengthMap as CodeLengthMap
from likejax.ood.complexity import ComplexityOnly as ComplexityOnly
from likejax.ood.complexity import InputComplexity as InputComplexity
from likejax.ood.curvature import Curvature as Curvature
from likejax.ood.curvature import PerturbedLogProbs as PerturbedLogProbs
from likejax.ood.decisions import adjusted_p_values as adjusted_p_values
from likejax.ood.decisions import benjamini_hochberg as benjamini_hochberg
from likejax.ood.decisions import fisher as fisher
from likejax.ood.decisions import simes as simes
from likejax.ood.density_of_states import DensityOfStates as DensityOfStates
from likejax.ood.density_of_states import PathNorms as PathNorms
from likejax.ood.density_of_states import Statistics as Statistics
from likejax.ood.density_of_states import likelihood_path as likelihood_path
from likejax.ood.diffusion_scores import DimensionEstimate as DimensionEstimate
from likejax.ood.diffusion_scores import NoiseMoments as NoiseMoments
from likejax.ood.diffusion_scores import NoiseNorms as NoiseNorms
from likejax.ood.diffusion_scores import PosteriorEigenvalues as PosteriorEigenvalues
from likejax.ood.diffusion_scores import PosteriorSpread as PosteriorSpread
from likejax.ood.diffusion_scores import diffusion_path as diffusion_path
from likejax.ood.diffusion_scores import intrinsic_dimension as intrinsic_dimension
from likejax.ood.diffusion_scores import multiscale_norms as multiscale_norms
from likejax.ood.embeddings import Embedding as Embedding
from likejax.ood.embeddings import NearestNeighbors as NearestNeighbors
from likejax.ood.embeddings import WhitenedEmbedding as WhitenedEmbedding
from likejax.ood.ensembles import EnsembleScore as EnsembleScore
from likejax.ood.ensembles import MemberLogProbs as MemberLogProbs
from likejax.ood.features import Feature as Feature
from likejax.ood.features import LogProb as LogProb
from likejax.ood.features import LogProbMap as LogProbMap
from likejax.ood.gradients import GradientNorms as GradientNorms
from likejax.ood.gradients import InputGradient as InputGradient
from likejax.ood.gradients import InputGradientNorm as InputGradientNorm
from likejax.ood.gradients import ParameterGradient as ParameterGradient
from likejax.ood.hierarchy import Hierarchical as Hierarchical
from likejax.ood.hierarchy import HierarchyRatio as HierarchyRatio
from likejax.ood.hierarchy import LatentKL as LatentKL
from likejax.ood.hierarchy import LogProbAbove as LogProbAbove
from likejax.ood.hierarchy import choose_k as choose_k
from likejax.ood.inputs import NOT_SAID as NOT_SAID
from likejax.ood.intervals import Interval as Interval
from likejax.ood.intervals import Spread as Spread
from likejax.ood.intervals import auroc_difference as auroc_difference
from likejax.ood.intervals import auroc_difference_of_changed as auroc_difference_of_changed
from likejax.ood.intervals import auroc_interval as auroc_interval
from likejax.ood.intervals import evaluate_changed as evaluate_changed
from likejax.ood.intervals import evaluate_scores as evaluate_scores
from likejax.ood.intervals import mean_auroc_interval as mean_auroc_interval
from likejax.ood.latent_scores import JacobianSpectrum as JacobianSpectrum
from likejax.ood.latent_scores import LastLevel as LastLevel
from likejax.ood.latent_scores import LastScale as LastScale
from likejax.ood.latent_scores import LatentFit as LatentFit
from likejax.ood.latent_scores import LatentTests as LatentTests
from likejax.ood.latent_scores import LocalDimension as LocalDimension
from likejax.ood.latent_scores import latent_tests as latent_tests
from likejax.ood.likelihood_scores import LikelihoodRatio as LikelihoodRatio
from likejax.ood.likelihood_scores import NegativeLogProb as NegativeLogProb
from likejax.ood.likelihood_scores import Typicality as Typicality
from likejax.ood.metrics import METRICS as METRICS
from likejax.ood.metrics import aupr as aupr
from likejax.ood.metrics import auroc as auroc
from likejax.ood.metrics import detection_error as detection_error
from likejax.ood.metrics import fpr_at_tpr as fpr_at_tpr
from likejax.ood.metrics import roc_curve as roc_curve
from likejax.ood.metrics import tpr_at_fpr as tpr_at_fpr
from likejax.ood.provenance import OrderTest as OrderTest
from likejax.ood.provenance import order_test as order_test
from likejax.ood.regret import LikelihoodRegret as LikelihoodRegret
from likejax.ood.regret import Regret as Regret
from likejax.ood.regret import Regretful as Regretful
from likejax.ood.report import Report as Report
from likejax.ood.score import FittedScore as FittedScore
from likejax.ood.score import Score as Score
from likejax.ood.score import restore as restore
from likejax.ood.shift import effective_size as effective_size
from likejax.ood.shift import shift_weights as shift_weights
from likejax.ood.shift import weighted_p_values as weighted_p_values
from likejax.ood.shifted_threshold import FittedThreshold as FittedThreshold
from likejax.ood.shifted_threshold import ShiftedThreshold as ShiftedThreshold
from likejax.ood.standard_scores import standard as standard
from likejax.ood.suites import SUITES as SUITES
from likejax.ood.suites import OutsideSet as OutsideSet
from likejax.ood.suites import Suite as Suite
from likejax.ood.suites import suite as suite
from likejax.ood.surroundings import Landscape as Landscape
from likejax.ood.surroundings import landscape as landscape
from likejax.ood.tokens import LowestMean as LowestMean
from likejax.ood.tokens import MinK as MinK
from likejax.ood.tokens import MinKPlus as MinKPlus
from likejax.ood.tokens import StandardizedMap as StandardizedMap
from likejax.ood.vectors import backend_score as backend_score
from likejax.ood.vectors import fit_backend as fit_backend

"""What type checkers see of the names that are imported when first used."""

from moesim import balance as balance
from moesim import counting as counting
from moesim import data as data
from moesim import domains as domains
from moesim import fitting as fitting
from moesim import hardware as hardware
from moesim import lab as lab
from moesim import laws as laws
from moesim import models as models
from moesim import numerics as numerics
from moesim import output as output
from moesim import pages as pages
from moesim import planning as planning
from moesim import plot as plot
from moesim import sites as sites
from moesim.balance.run import simulate as simulate
from moesim.counting.run import flops as flops
from moesim.errors import InputError as InputError
from moesim.fitting.fit import fit as fit
from moesim.fitting.isoflop import isoflop as isoflop
from moesim.fitting.repeated import compare as compare
from moesim.fitting.repeated import rolling as rolling
from moesim.fitting.runs import load_runs as load_runs
from moesim.fitting.saved import load_fit as load_fit
from moesim.fitting.versus import versus as versus
from moesim.forms import Coefficient as Coefficient
from moesim.hardware.exchange import all_to_all_bandwidth as all_to_all_bandwidth
from moesim.hardware.gemm import gemm_tflops as gemm_tflops
from moesim.hardware.timed import step_time as step_time
from moesim.laws.law import Law as Law
from moesim.laws.law import law as law
from moesim.laws.load import load_law as load_law
from moesim.laws.load import load_repetition as load_repetition
from moesim.laws.repetition import Repetition as Repetition
from moesim.laws.repetition import repetition as repetition
from moesim.models.architecture import load_architecture as load_architecture
from moesim.output.store import open_result as open_result
from moesim.output.store import save as save
from moesim.pages.page import page as page
from moesim.planning.model import Model as Model
from moesim.planning.optimum import optimum as optimum
from moesim.planning.plan import plan as plan
from moesim.planning.sweep import sweep as sweep

__version__: str

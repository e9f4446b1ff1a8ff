from .figures import training_curves as training_curves
from .log import read_run as read_run
from .page import try_run_report as try_run_report
from .page import write_run_report as write_run_report

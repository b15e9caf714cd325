"""The trainer's contract: `RunConfig` in, `Progress` out. Free of torch, so that the operator can import it."""

from snowmelt_trainer.contract.progress import FinalRecord, Progress, Result
from snowmelt_trainer.contract.reasons import Outcome, Reason
from snowmelt_trainer.contract.run import RunConfig

__all__ = ["FinalRecord", "Outcome", "Progress", "Reason", "Result", "RunConfig"]

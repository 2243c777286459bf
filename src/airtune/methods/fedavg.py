"""FedAvg of LoRA factors, known as FedIT."""

from __future__ import annotations

from airtune.methods.rounding import Rounding


class FedAvg(Rounding):
    """Federated averaging of the adapter, dense upload: the reference for all others.

    Source: McMahan et al. 2017 (averaging by number of examples); FedIT applies it to LoRA.
    With ``private: ["classifier.*"]`` each client keeps its own head (FedPer).
    """

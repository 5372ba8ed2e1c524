"""What a model will cost, before anything is allocated: parameters, memory, floating-point operations."""

from multimodal_zoo.analysis.memory import Setting
from multimodal_zoo.analysis.plan import Plan, plan

__all__ = ["Plan", "Setting", "plan"]

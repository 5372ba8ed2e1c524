"""What a model will cost, before anything is allocated: parameters, memory, floating-point operations."""

from multimodal_zoo.analysis.costs import Device
from multimodal_zoo.analysis.decoder_plan import DecoderPlan, decoder_plan
from multimodal_zoo.analysis.plan import Plan, plan
from multimodal_zoo.analysis.setting import Setting

__all__ = ["DecoderPlan", "Device", "Plan", "Setting", "decoder_plan", "plan"]

"""What a model will cost, before anything is allocated: parameters, memory, floating-point operations."""

from multimodal_zoo.analysis.costs import Device
from multimodal_zoo.analysis.decoder_plan import DecoderPlan, decoder_plan
from multimodal_zoo.analysis.plan import Plan, plan
from multimodal_zoo.analysis.sample_plan import SamplePlan, sample_plan
from multimodal_zoo.analysis.samples import sample_of
from multimodal_zoo.analysis.setting import Setting

__all__ = ["DecoderPlan", "Device", "Plan", "SamplePlan", "Setting", "decoder_plan", "plan", "sample_of", "sample_plan"]

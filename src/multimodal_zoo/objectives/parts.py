"""Modules whose import registers the parts of this room."""

from multimodal_zoo.objectives.adversarial import Adversarial as Adversarial
from multimodal_zoo.objectives.contrastive import ContrastiveObjective as ContrastiveObjective
from multimodal_zoo.objectives.denoising import Denoising as Denoising
from multimodal_zoo.objectives.discriminators import PatchDiscriminator as PatchDiscriminator
from multimodal_zoo.objectives.drawn_from import EncodedPictures as EncodedPictures
from multimodal_zoo.objectives.drawn_from import ImaginedPictures as ImaginedPictures
from multimodal_zoo.objectives.frames import VideoTextObjective as VideoTextObjective
from multimodal_zoo.objectives.image_text import ImageTextContrast as ImageTextContrast
from multimodal_zoo.objectives.image_text import MultiViewContrast as MultiViewContrast
from multimodal_zoo.objectives.image_text import NearestNeighbour as NearestNeighbour
from multimodal_zoo.objectives.masked_image import MaskedImageObjective as MaskedImageObjective
from multimodal_zoo.objectives.next_element import NextElement as NextElement
from multimodal_zoo.objectives.next_token import NextToken as NextToken
from multimodal_zoo.objectives.patch_alignment import AlignedNextToken as AlignedNextToken
from multimodal_zoo.objectives.pixel_distances import L2Distance as L2Distance
from multimodal_zoo.objectives.preference import PreferenceObjective as PreferenceObjective
from multimodal_zoo.objectives.queue import NeighbourQueue as NeighbourQueue
from multimodal_zoo.objectives.queue import WrappingQueue as WrappingQueue
from multimodal_zoo.objectives.self_supervision import MaskedWords as MaskedWords
from multimodal_zoo.objectives.self_supervision import Simclr as Simclr
from multimodal_zoo.objectives.self_supervision import Simsiam as Simsiam
from multimodal_zoo.objectives.supervisions import SupervisedContrast as SupervisedContrast
from multimodal_zoo.objectives.token_wise import TokenWise as TokenWise
from multimodal_zoo.objectives.vision_tokenizer import VisionTokenizerLoss as VisionTokenizerLoss

"""The networks. They need torch alone, and their parameters are named as in the official checkpoints."""

from samplug.nn.fpn import FpnNeck, ImageEncoder
from samplug.nn.frames import FrameOutput, Past
from samplug.nn.hiera import Hiera
from samplug.nn.mask_decoder import MaskDecoder, SAM2MaskDecoder
from samplug.nn.memory_attention import MemoryAttention, MemoryAttentionLayer
from samplug.nn.memory_encoder import MemoryEncoder
from samplug.nn.prompt_encoder import PromptEncoder
from samplug.nn.recall import Recall
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.nn.tiny_vit import TinyViT
from samplug.nn.two_way import SAM2TwoWayTransformer, TwoWayTransformer
from samplug.nn.types import Answer, Features, PromptBatch
from samplug.nn.vit import ImageEncoderViT

__all__ = [
    "Answer",
    "Features",
    "FpnNeck",
    "FrameOutput",
    "Hiera",
    "ImageEncoder",
    "ImageEncoderViT",
    "MaskDecoder",
    "MemoryAttention",
    "MemoryAttentionLayer",
    "MemoryEncoder",
    "Past",
    "PromptBatch",
    "PromptEncoder",
    "Recall",
    "SAM2MaskDecoder",
    "SAM2Model",
    "SAM2TwoWayTransformer",
    "SAMModel",
    "TinyViT",
    "TwoWayTransformer",
]

"""The networks. They need torch alone, and their parameters are named as in the official checkpoints."""

from samplug.nn.decoder.mask_decoder import MaskDecoder, SAM2MaskDecoder
from samplug.nn.decoder.prompt_encoder import PromptEncoder
from samplug.nn.decoder.two_way import SAM2TwoWayTransformer, TwoWayTransformer
from samplug.nn.encoders.fpn import FpnNeck, ImageEncoder
from samplug.nn.encoders.hiera import Hiera
from samplug.nn.encoders.tiny_vit import TinyViT
from samplug.nn.encoders.vit import ImageEncoderViT
from samplug.nn.memory.attention import MemoryAttention, MemoryAttentionLayer
from samplug.nn.memory.encoder import MemoryEncoder
from samplug.nn.memory.frames import FrameOutput, MemoryContext
from samplug.nn.memory.selection import MemorySelection
from samplug.nn.sam import SAMModel
from samplug.nn.sam2 import SAM2Model
from samplug.nn.structs import Answer, Features, PromptBatch

__all__ = [
    "Answer", "Features", "FpnNeck", "FrameOutput", "Hiera", "ImageEncoder", "ImageEncoderViT", "MaskDecoder",
    "MemoryAttention", "MemoryAttentionLayer", "MemoryContext", "MemoryEncoder", "MemorySelection", "PromptBatch",
    "PromptEncoder", "SAM2MaskDecoder", "SAM2Model", "SAM2TwoWayTransformer", "SAMModel", "TinyViT",
    "TwoWayTransformer",
]  # fmt: skip

"""The families of networks: a file each, and a line each here."""

from __future__ import annotations

from samplug.checkpoints.families import mobile_sam, sam, sam2
from samplug.checkpoints.families.base import Row

FAMILIES: dict[type[Row], tuple[Row, ...]] = {
    sam.ViTRow: sam.SAM_ROWS,
    mobile_sam.TinyViTRow: mobile_sam.MOBILE_SAM_ROWS,
    sam2.HieraRow: sam2.SAM2_ROWS,
}
VARIANTS: dict[str, Row] = {row.variant: row for rows in FAMILIES.values() for row in rows}

"""The image encoders: ViT, TinyViT, Hiera with its FPN."""

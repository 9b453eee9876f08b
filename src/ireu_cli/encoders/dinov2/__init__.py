"""DINOv2's vision transformers, as transformers' folders hold them."""

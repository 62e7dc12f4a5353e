"""Networks in files: load, save, and recognise them by their tensors."""

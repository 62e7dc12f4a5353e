"""How a network computes: precision, compilation, batch sizes that adapt to memory."""

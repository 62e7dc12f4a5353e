"""What predictors run over: images, videos, streams."""

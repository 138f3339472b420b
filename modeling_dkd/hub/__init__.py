"""What goes to the Hub: model cards whose figures can be traced, publishing, and embeddings as data sets."""

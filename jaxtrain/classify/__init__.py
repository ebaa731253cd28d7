"""Text classifiers trained here: quality, toxicity, topic, spam. Clean measures signals with them.

In: labelled documents (Parquet, CSV or JSON lines). Out: `classifier.safetensors` and `classifier.json`.

words.py   words and n-grams as numbers
linear.py  a linear model on hashed n-grams: trained in JAX, applied in numpy
run.py     the stage
"""

"""What the arrays of an embedding file are called; apart from what reads them, which takes seconds to import."""

# What the arrays of a file are, under these names unless the caller gives others.
ARRAYS = {
    "video_embeds": "video embeddings (N, D) or (N, T, D), one row a frame",
    "labels": "class of each clip (N,), -1 unlabelled",
    "text_embeds": "class texts (K, D) or (K, P, D), one row a prompt; (P, K, D) where there are K class names",
    "class_names": "one text a class",
    "names": "one text a clip",
    "prompts": "the texts that were embedded, or their templates",
    "class_id": "in a file of class texts: the label that each of them stands for (K,); other clips are left out",
    "text_rows": "class text that each label stands for: labels become text_rows[labels]; read only where it is named",
}
# The option of evaluate.py that says the same for all files.
FLAGS = {"video_embeds": "--video_key", "labels": "--label_key", "text_embeds": "--text_key"}

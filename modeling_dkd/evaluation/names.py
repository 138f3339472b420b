"""What evaluate.py can be asked for by name; apart from the code behind the names, which takes seconds to import."""

PROTOCOLS = {
    "full": "all clips are the unlabelled domain data and the test (transductive)",
    "induct": "a random half is the domain, the other half the test (inductive)",
    "quarter": "only a random quarter of the classes occurs, texts of all are asked (transductive)",
    "few": "64 random clips are the domain, the rest the test (inductive)",
    "imbal": "a long tail: of class k a share u**3 is kept, u uniform in [0, 1] (transductive)",
    "open": "only a random half of the classes is asked, clips of all are the domain and the test (transductive)",
}
DEFAULT_PROTOCOLS = ("full", "induct", "quarter", "few", "imbal")
REFERENCE = "zero-shot"  # the row that all others are compared with
GIVEN = "given"  # the protocol's name where domain and test are files of their own
BASELINES = (
    "transclip",
    "stata",
    "gmm",
    "mean_shift",
    "oga",
    "dota",
    "adapt",
    "frolic_bias",
    "paper_literal",
    "gda",
)
# Rows whose methods return embeddings, as those of `dkd/...` do: what --search compares.
EMBEDDING_ROWS = (REFERENCE, "both_centred", "mean_shift", "paper_literal", "dkd")
ABLATIONS = (
    "video_only",
    "text_only",
    "unanchored",
    "averaged_first",
    "kernel_none",
    "kernel_imq",
    "three_steps",
    "full_video_step",
)
DIVIDED = ("ucf101", "hmdb51")  # into three official splits
LISTED = ("kinetics400", "kinetics600", "kinetics700", "ssv2", "activitynet", "diving48", "msrvtt")
DATASETS = (*DIVIDED, *LISTED, "folder", "csv", "hub")
DTYPES = ("float32", "float16", "bfloat16")
FORMATS = ("text", "md", "latex", "csv")

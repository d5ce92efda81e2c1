"""What a kernel can import in Kaggle's image."""

import contextlib
import functools
import importlib.metadata
import re

from kit.core import provenance

# Modules that kernels are known to import, each with the package that brings it; from the image's
# Dockerfile, and Colab's list of packages on which it is built (November 2026)
PACKAGES = {
    **{name: name for name in (
        "IPython", "ipykernel", "ipywidgets", "nbclient", "nbconvert", "nbformat", "papermill",
        "tensorflow", "keras", "jax", "flax", "optax", "tensorboard", "tensorflow_datasets",
        "tensorflow_hub", "tensorflow_probability", "keras_tuner", "torch", "torchvision",
        "torchaudio", "torchmetrics", "torchinfo", "pytorch_lightning", "timm", "kornia", "fastai",
        "transformers", "datasets", "accelerate", "sentencepiece", "tokenizers", "safetensors",
        "xgboost", "lightgbm", "catboost", "optuna", "hyperopt", "shap", "numpy", "scipy",
        "pandas", "polars", "pyarrow", "matplotlib", "seaborn", "plotly", "bokeh", "altair",
        "statsmodels", "sympy", "numba", "joblib", "dask", "networkx", "albumentations", "imageio",
        "imgaug", "nltk", "spacy", "gensim", "h5py", "jinja2", "filelock", "tqdm", "rich", "typer",
        "click", "pyparsing", "psutil", "requests", "openpyxl", "lxml", "missingno", "mlxtend",
        "wordcloud", "kaggle", "pytest", "cloudpickle")},
    "PIL": "pillow", "cv2": "opencv-python-headless", "sklearn": "scikit-learn",
    "skimage": "scikit-image", "yaml": "pyyaml", "bs4": "beautifulsoup4",
    "imblearn": "imbalanced-learn", "category_encoders": "category-encoders",
    "dateutil": "python-dateutil"}
# Nobody else has these modules
KAGGLES_OWN = {"kaggle_secrets", "kaggle_datasets", "kaggle_session", "kaggle_gcp"}
INSTALLERS = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "wheel")


@functools.lru_cache(maxsize=1)
def importable() -> list[str]:
    """Top-level names that a kernel can import in Kaggle's image, if they are installed here.

    What the packages need is there as well.
    """
    wanted = [name for package in PACKAGES.values()
              for name in provenance.distribution_names(package)]
    names = set(PACKAGES)
    for package in wanted:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            for requirement in importlib.metadata.requires(package) or ():
                name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
                if "extra ==" not in requirement and _norm(name) not in map(_norm, wanted):
                    wanted.append(name)
    known = set(map(_norm, wanted))
    for module, packages in importlib.metadata.packages_distributions().items():
        if known & set(map(_norm, packages)):
            names.add(module)
    return sorted(names - {"kit"})


def _norm(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

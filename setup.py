"""Packages the node: the `dynamo` tree and the `twistd dynamo` plugin."""

from setuptools import find_packages, setup

SIM = ["tqdm>=4.66"]
"""What `python -m dynamo.sim` shows a bar with; it runs without."""

setup(
    name="dynamo",
    version="0.1.0",
    description="A leaderless, always-writable object store run by twistd",
    packages=[*find_packages(include=["dynamo", "dynamo.*"]), "twisted.plugins"],
    package_data={"dynamo": ["py.typed"]},
    python_requires=">=3.11",
    install_requires=[
        "twisted>=24.10",
        "klein>=24.8",
        "treq>=24.9.1",
        "txaio>=23.6.1",
        "lmdb>=1.5",
        "msgspec>=0.19",
        "httptools>=0.6.4",
        "multipart>=1.2",
        "PyYAML>=6.0.2",
        "blake3>=1.0",
        "prometheus-client>=0.21",
        "attrs>=24.2",
        "cryptography>=43",
    ],
    extras_require={
        "sim": SIM,
        "dev": [
            *SIM,
            "pytest>=8.3",
            "pytest-twisted>=1.14.3",
            "hypothesis>=6.112",
            "import-linter>=2.1",
            "mypy>=1.13",
            "mypy-zope>=1.0.8",
            "ruff>=0.8",
            "types-PyYAML",
        ],
    },
)

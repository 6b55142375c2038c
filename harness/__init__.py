"""Does LoRA match full fine-tuning, at what memory, and did the last TRL upgrade change that?"""

__version__ = "0.1.0"

"""assetd: builds web assets, and keeps them right while people edit."""

__version__ = "0.1.0"

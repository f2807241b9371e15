"""Models: load one, name its sites, run it with hooks that leave nothing behind."""

from inscape.models.loading import load
from inscape.models.model import Model
from inscape.models.sites import Site, SiteInfo, SiteTable

__all__ = ["Model", "Site", "SiteInfo", "SiteTable", "load"]

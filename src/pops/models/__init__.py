"""Models: their names and the hub (`hub`), what their folders hold (`layout`), a loaded one (`model`), `tiny`."""

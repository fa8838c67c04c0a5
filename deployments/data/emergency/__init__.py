"""The emergency service's data: activations, the copy of the site, the journal and its way back."""

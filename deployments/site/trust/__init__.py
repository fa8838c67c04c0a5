"""Who belongs to a site: its certificate authority, its certificates, and what is sealed to them."""

"""Who asks: the guard before every route, and the routes of sign-in."""

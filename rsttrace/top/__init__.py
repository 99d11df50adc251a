"""``rsttrace top``: what is being reset right now, as a screen to look at."""

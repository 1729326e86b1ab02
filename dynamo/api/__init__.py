"""HTTP faces for clients; each only translates between HTTP and the coordinator."""

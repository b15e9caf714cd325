"""What runs the trainers: KubeRay in a cluster, or an existing Ray cluster."""

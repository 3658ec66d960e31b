"""How binary matting networks are trained (BiVM section 3.5): LightningModules, their losses and their schedules."""

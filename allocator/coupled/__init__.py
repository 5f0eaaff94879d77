"""Problems whose units are coupled by more than one budget: multipliers, and models for HiGHS."""

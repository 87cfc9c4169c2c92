"""Admission policies: what ValidatingAdmissionPolicies refuse and what MutatingAdmissionPolicies change.

In come a write under admission (`Attributes`) and the policies and bindings in the watch cache; out go refusals,
warnings and audit annotations (validating.py), or a changed object (mutating.py). `source.py` arranges policies by the
resources that they are about, so that a write which no policy is about costs one look-up; a change of a policy is in
force with the write of it. Policies are compiled when they are first needed.
"""

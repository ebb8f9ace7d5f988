"""Commands of hkrun as jobs of a cluster: sent through Ray Jobs, followed, found again and stopped."""

from hkrun.cluster.jobs.access import open_access
from hkrun.cluster.jobs.server import Job, JobServer, check_id
from hkrun.cluster.jobs.submitting import STOP_WAIT_S, Submission, Work, find_user, is_job_of, submit

"""The teacher's outputs: computed on every batch, or once for every view of every training image.

Other methods' compact forms of knowledge lie in the table too; whole feature maps do not.

teaching.py   the teacher as the training loop calls it, and the one that runs live
table.py      the teacher whose outputs are looked up, and computed where they are missing
computing.py  passes of one shape, so that an output's bits depend on its view alone
parts.py      what of a network's output a table holds, and how it lies in rows
rows.py       rows in memory-mapped files, each with a checksum
"""

from hkrun.knowledge.computing import RowComputer
from hkrun.knowledge.identity import describe_table, hash_images, table_id
from hkrun.knowledge.rows import RowFiles, file_sizes
from hkrun.knowledge.table import TableTeacher
from hkrun.knowledge.teaching import LiveTeacher, Teaching

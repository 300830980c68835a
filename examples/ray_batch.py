"""How do I predict millions of pictures, on this machine or on a cluster, and read the people afterwards?

pip install 'multihmr[cluster]'
python examples/ray_batch.py

The same from a shell: multihmr cluster s3://bucket/shards --out s3://bucket/people --address HOST:6379
"""

import tarfile
from pathlib import Path

import pyarrow.parquet as pq

from multihmr.cluster import Settings, predict_dataset
from multihmr.io.parquet import read_people

# A WebDataset shard, as one would have thousands of, with a file in it that is no picture
picture = Path(__file__).parent / "images/astronaut.jpg"
with tarfile.open("shard-000.tar", "w") as tar:
    tar.add(picture, "000.jpg")
    tar.add(__file__, "001.jpg")

# Started again after a kill, it goes on with what is not done
report = predict_dataset(["shard-000.tar"], "people", settings=Settings(workers=1))
print(f"{report.pictures} pictures, {report.people} people, {report.bad} bad: {report.reasons}")

# The numbers, for whatever reads Parquet
people = pq.read_table("people/people").to_pandas()
print(people[["picture", "score", "translation"]])

# The meshes, of the pictures that are wanted
for name, humans in read_people("people"):
    print(name, humans, humans.vertices.shape)

//! The engine of tests: the core's storage model. Nothing survives the process.

use bytes::Bytes;
use smp_proto::broker::record::{BlobRecord, ServiceNumber, ServiceRecord};
use smp_proto::broker::storage::{
    ActionId, BlobId, Completion, QueueNumber, Sequence, StorageAction, StoredLink, StoredMessage,
    StoredQueue,
};
use smp_proto::storage_model::StorageModel;

use super::{Engine, StorageError};

/// Storage in memory.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    model: StorageModel,
}

impl Engine for Memory {
    fn load(
        &mut self,
        each: &mut dyn FnMut(StoredQueue) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.model.queues().try_for_each(each)
    }

    fn load_blobs(
        &mut self,
        each: &mut dyn FnMut(BlobId, BlobRecord) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.model.blobs().try_for_each(|(id, record)| each(id, record))
    }

    fn load_services(
        &mut self,
        each: &mut dyn FnMut(ServiceNumber, ServiceRecord) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.model.services().try_for_each(|(number, record)| each(number, record))
    }

    fn load_records(
        &mut self,
        prefix: &[u8],
        each: &mut dyn FnMut(Bytes, Bytes) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.model.records(prefix).try_for_each(|(key, value)| each(key.clone(), value.clone()))
    }

    fn commit(
        &mut self,
        writes: &mut dyn Iterator<Item = &StorageAction>,
        durable: bool,
    ) -> Result<Vec<bool>, StorageError> {
        let mut deletions = Vec::new();
        for write in writes {
            // The model answers by action; a commit is answered as a whole.
            if let Completion::Deleted(_, more) = self.model.apply(ActionId(0), write.clone()) {
                deletions.push(more);
            }
        }
        if durable {
            self.model.sync();
        }
        Ok(deletions)
    }

    fn read_message(
        &mut self,
        queue: QueueNumber,
        sequence: Sequence,
    ) -> Result<Option<StoredMessage>, StorageError> {
        Ok(self.model.message(queue, sequence).cloned())
    }

    fn read_record(&mut self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.model.record(key).cloned())
    }

    fn read_blob(&mut self, id: BlobId) -> Result<Option<Bytes>, StorageError> {
        Ok(self.model.blob(id).cloned())
    }

    fn read_link(&mut self, queue: QueueNumber) -> Result<Option<StoredLink>, StorageError> {
        Ok(self.model.link(queue).cloned())
    }

    fn read_queue(&mut self, queue: QueueNumber) -> Result<Option<StoredQueue>, StorageError> {
        Ok(self.model.queue(queue))
    }
}

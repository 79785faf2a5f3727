//! Templates: names for images on the share. An operator's upload becomes an image by a task of some node; the center keeps which name
//! stands for which image, and which images have no name any more and are to be removed. Who does a task is not decided here.
//!
//! | file | what |
//! |---|---|
//! | `templates/turns.rs` | which tasks may be ordered now; pure |
//! | `templates/flow.rs` | one function a request or outcome |

mod flow;
mod turns;

use jiff::Timestamp;
use lodge_model::environment::order::{TaskKind, TemplateRef};
use lodge_model::ids::{Digest, NodeId, TaskId};
use serde::{Deserialize, Serialize};

use crate::environments::records::Task;
use crate::fault::Fault;
use crate::store::{Record, Tx};

pub use flow::{import, look_around, may_import, remove, told, view, views};

/// A template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Name.
    pub name: String,
    /// When it was sent.
    pub created: Timestamp,
    /// Where it stands.
    pub state: State,
    /// Grows with every change.
    pub version: u64,
}

/// Where a template stands: `importing` → `ready` or `failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum State {
    /// An upload is made into an image.
    Importing {
        /// The upload.
        upload: Digest,
        /// The task, once it has been ordered.
        task: Option<TaskId>,
    },
    /// Environments can be made from it.
    Ready {
        /// The image.
        image: TemplateRef,
    },
    /// There is no image.
    Failed {
        /// Why, for people.
        error: String,
    },
}

/// An image without a name, that is to be removed from the share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The image.
    pub digest: Digest,
    /// The task, while it is ordered.
    pub task: Option<TaskId>,
    /// When it is tried again after it has failed.
    pub retry: Option<Timestamp>,
}

impl Template {
    /// Its image, if it is ready.
    pub fn image(&self) -> Option<&TemplateRef> {
        match &self.state {
            State::Ready { image } => Some(image),
            State::Importing { .. } | State::Failed { .. } => None,
        }
    }
}

impl Record for Template {
    const KIND: &'static str = "template";
    fn key(&self) -> String {
        self.name.clone()
    }
}

impl Record for Removal {
    const KIND: &'static str = "template-removal";
    fn key(&self) -> String {
        self.digest.hex()
    }
}

/// The image that a name or a digest stands for, if environments can be made from it now.
pub fn find(tx: &Tx, name_or_digest: &str) -> Result<TemplateRef, Fault> {
    if let Ok(digest) = name_or_digest.parse::<Digest>() {
        let all = tx.list::<Template>()?;
        let image = all.iter().filter_map(Template::image).find(|image| image.digest == digest).cloned();
        return image
            .ok_or_else(|| Fault::bad_input(format!("template: no template has the image {digest}; lodge template ls")));
    }
    let Some(template) = tx.get::<Template>(&name_or_digest)? else {
        let why = format!("template: there is no template {name_or_digest:?}; lodge template ls lists them");
        return Err(Fault::bad_input(why));
    };
    match template.state {
        State::Ready { image } => Ok(image),
        State::Importing { .. } => Err(Fault::conflict(format!(
            "template: {name_or_digest} is still being imported; lodge template show {name_or_digest} says how far it is"
        ))),
        State::Failed { error } => {
            Err(Fault::conflict(format!("template: the import of {name_or_digest} has failed: {error}; import it again")))
        }
    }
}

/// The uploads that are still needed.
pub fn uploads(tx: &Tx) -> Result<Vec<Digest>, Fault> {
    let wanted = tx.list::<Template>()?.into_iter().filter_map(|template| match template.state {
        State::Importing { upload, .. } => Some(upload),
        State::Ready { .. } | State::Failed { .. } => None,
    });
    Ok(wanted.collect())
}

/// Whether a node has been told to import an upload.
pub fn may_fetch(tx: &Tx, node: NodeId, wanted: &Digest) -> Result<bool, Fault> {
    let imports = |task: &Task| matches!(&task.what, TaskKind::ImportTemplate { upload } if upload == wanted);
    Ok(tx.list::<Task>()?.iter().any(|task| imports(task) && task.node.is_some_and(|(told, _)| told == node)))
}

#[cfg(test)]
mod tests;

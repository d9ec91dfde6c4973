//! Storage commitment reports on an association of our own (PS3.4 J.3.3): as requestor we are the provider of the SOP
//! class, which takes role selection (PS3.7 D.3.3.4).

use dicom_ul::pdu::{RequestorRoles, UserVariableItem};

use super::{ProposedContext, ScuError, ScuOptions, StorageScu, StoreResponse};
use crate::command::field;
use crate::commitment::CommitmentReport;
use crate::scp::report_command;
use crate::uids;

impl StorageScu {
    /// Connects to a user of Storage Commitment, for [`Self::report`]. The role of a provider is proposed; that a peer
    /// does not confirm it is overlooked, as its answer to the report is what counts.
    ///
    /// # Errors
    /// If there is no connection, no answer, or no accepted context.
    pub async fn connect_to_report(options: &ScuOptions) -> Result<Self, ScuError> {
        let syntaxes = [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN].map(uids::known);
        let context = ProposedContext::new(uids::known(uids::STORAGE_COMMITMENT), syntaxes);
        let roles = RequestorRoles { scu: false, scp: true };
        let roles = UserVariableItem::ScuScpRoleSelectionSubItem(uids::STORAGE_COMMITMENT.to_owned(), roles);
        Self::connect_as(options, &[context], vec![roles]).await
    }

    /// Reports on a request (N-EVENT-REPORT), and waits for the answer.
    ///
    /// # Errors
    /// [`ScuError::ContextNotAccepted`] leaves the association as it was; every other error ends it.
    pub async fn report(&mut self, report: &CommitmentReport) -> Result<StoreResponse, ScuError> {
        let class = uids::known(uids::STORAGE_COMMITMENT);
        let Some(context) = self.contexts.iter().find(|context| context.abstract_syntax == class).cloned() else {
            let transfer_syntax = uids::known(uids::IMPLICIT_VR_LITTLE_ENDIAN);
            return Err(ScuError::ContextNotAccepted { sop_class: class, transfer_syntax });
        };
        let message_id = self.next_message_id();
        let command = report_command(message_id, report);
        let bytes = report.write(&context.transfer_syntax);
        let longest = self.exchange.as_mut().ok_or(ScuError::Closed)?.wire().max_fragment();
        let (first, mut rest) = bytes.split_at(longest.min(bytes.len()));
        let sent = self.send_data_set(context.id, &command, first.to_vec(), &mut rest).await;
        self.answer(sent, field::N_EVENT_REPORT_RSP, message_id).await
    }
}
